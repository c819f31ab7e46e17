"""Members, stores and endpoints that misbehave, each a few lines of a real part changed; `misbehave.py` lists them."""
