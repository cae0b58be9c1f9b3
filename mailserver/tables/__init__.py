"""Lookup tables behind one interface: hash lmdb texthash cidr regexp pcre inline static, and combinations."""
