"""How weights, activation rows and caches lie in device memory."""
