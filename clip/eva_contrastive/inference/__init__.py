"""For people: ranking captions, searching folders, exporting the towers."""
