"""One question a file. ``python -m benchmarks`` asks them all, ``python -m benchmarks NAME ...`` the named ones."""
