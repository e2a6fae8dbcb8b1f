"""What the views and panels of the page share: components, events, context, theme."""
