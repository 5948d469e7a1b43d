"""The session behind *Explore slide*: teaching, staining, trust."""
