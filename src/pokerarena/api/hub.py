"""placeholder"""


class LiveHub:
    """placeholder"""
