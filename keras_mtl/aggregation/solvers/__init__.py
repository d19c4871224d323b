"""Small convex problems, solved in the graph."""
