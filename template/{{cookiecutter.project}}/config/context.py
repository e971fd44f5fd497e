from django.conf import settings


def project(request):
    """What every template may use."""
    return {"project_name": settings.PROJECT_NAME}
