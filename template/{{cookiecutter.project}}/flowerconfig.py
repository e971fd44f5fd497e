"""What Flower reads when it starts. Without a password it shows everything to everybody: so it does not start then."""

from config.environment import Environment

# /metrics and /healthcheck have no password, whatever is set here: the proxy in front keeps them to itself.
basic_auth = [Environment().required("FLOWER_BASIC_AUTH", "give Flower a name and a password, as in name:password")]
