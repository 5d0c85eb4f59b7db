"""A page to try a family on: two prompts, a picture with a play-head, and what was heard of it.

`python -m images_that_speak.demo` (configs/demo.yaml). Local: it listens on this machine alone, makes one
picture at a time, and neither the server nor the page asks anything of the network.
"""
