"""What Flower reads when it starts. Without a password it shows everything to everybody: so it does not start then."""

from config.environment import Environment

basic_auth = [Environment().required("FLOWER_BASIC_AUTH", "give Flower a name and a password, as in name:password")]
