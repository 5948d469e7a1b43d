"""Tables of spots: files of AnnData, Space Ranger and text, and what is in them."""
