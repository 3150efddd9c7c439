"""What the rings of tests share: memory with canaries, a peer process, how long to wait."""
