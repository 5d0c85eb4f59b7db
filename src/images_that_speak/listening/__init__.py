"""Pictures of what is said: recordings → conditions of the image branch → drawings."""
