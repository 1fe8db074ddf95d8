"""What is kept: tables, queries, one module per aggregate. Nothing here runs on the media loop."""
