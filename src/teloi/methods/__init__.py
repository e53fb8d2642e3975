"""The methods, in wings by what they are for; one file a method family."""
