"""Pages and videos people look at, made from run folders and nothing else. No torch."""
