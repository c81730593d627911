"""Red-team drills against live nodes: attacks, what they meet, and what honest clients notice."""
