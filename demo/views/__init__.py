"""The page's views: each returns a component and draws a visitor's state into it."""
