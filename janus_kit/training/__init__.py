"""How the embedded model is made; also how a Janus model of your own is trained."""
