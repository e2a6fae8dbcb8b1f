"""Gradio's theme, in the page's own colours: `static/page.css` names them for light and dark."""

from __future__ import annotations

from gradio.themes import Base

FONT = ["-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]

# Gradio's variable: ours. A custom property changes with the mode by itself.
_COLOURS = {
    "body_background_fill": "page",
    "body_text_color": "ink",
    "body_text_color_subdued": "soft",
    "background_fill_primary": "card",
    "background_fill_secondary": "card",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "color_accent_soft": "accent-soft",
    "link_text_color": "accent",
    "link_text_color_hover": "accent",
    "link_text_color_active": "accent",
    "link_text_color_visited": "accent",
    "block_background_fill": "card",
    "block_border_color": "line",
    "block_label_background_fill": "card",
    "block_label_text_color": "soft",
    "block_title_text_color": "ink",
    "block_info_text_color": "soft",
    "panel_background_fill": "card",
    "input_background_fill": "card",
    "input_border_color": "line",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "soft",
    "checkbox_background_color": "card",
    "checkbox_border_color": "soft",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_text_color": "ink",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent-strong",
    "button_primary_border_color": "accent",
    "button_primary_text_color": "on-accent",
    "button_secondary_background_fill": "card",
    "button_secondary_background_fill_hover": "accent-soft",
    "button_secondary_border_color": "line",
    "button_secondary_text_color": "ink",
    "button_cancel_background_fill": "card",
    "button_cancel_background_fill_hover": "accent-soft",
    "button_cancel_border_color": "danger",
    "button_cancel_text_color": "danger",
    "slider_color": "accent",
    "loader_color": "accent",
    "error_text_color": "danger",
    "error_background_fill": "card",
    "error_border_color": "danger",
    "table_text_color": "ink",
    "table_border_color": "line",
    "table_even_background_fill": "card",
    "table_odd_background_fill": "page",
}


def theme() -> Base:
    """The theme; it asks no other host for fonts."""
    found = Base(font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"], radius_size="lg")
    both = {
        f"{name}{mode}": f"var(--nbdt-{colour})"
        for name, colour in _COLOURS.items()
        for mode in ("", "_dark")
    }
    return found.set(
        **both,
        color_accent="var(--nbdt-accent)",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_radius="var(--nbdt-radius)",
        container_radius="var(--nbdt-radius)",
        button_primary_shadow="none",
        button_secondary_shadow="none",
    )
