"""An application that believes nobody but the signature: runs the lines of docs/recipes.md.

Arguments: the port on which Vestibule serves app.test, the authority's certificate. Standard input: the lines
of the recipe, an empty comment `#`, then a token a line. Says of each who it is about, or what is wrong with it.
"""

import os
import socket
import sys

port, ca = sys.argv[1:]
os.environ["SSL_CERT_FILE"] = ca

# The name is not in the DNS.
connect = socket.create_connection
socket.create_connection = lambda address, *rest, **more: connect(
    ("127.0.0.1", int(port)) if address == ("app.test", 443) else address, *rest, **more
)

import jwt

recipe, tokens = sys.stdin.read().split("\n#\n")
application = {}
exec(recipe.replace("https://app.example.com", "https://app.test"), application)

for token in tokens.split():
    try:
        print(application["user"](token))
    except jwt.PyJWTError as error:
        print(type(error).__name__)
