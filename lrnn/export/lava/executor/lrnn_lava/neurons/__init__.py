"""A group of neurons as a Lava Process (process), and what it does on a CPU (models).

They have a folder of their own because Lava runs every module beside a Process in search of its models.
"""
