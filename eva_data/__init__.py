"""What lies on disk: files written completely or not at all, pictures, and the folder of a run.

The floor that every project stands on, beside `eva_backbone`; it imports nothing of this toolkit.
"""
