"""What people look at: reports, tables, rankings and the web server."""
