"""How fast this kit is on this machine, against what else one would use: `c2f bench`."""
