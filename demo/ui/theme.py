"""Gradio's theme in the page's colours, which `static/page.css` names for light and dark."""

from __future__ import annotations

from gradio.themes import Base

FONT = ["-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]

# The page's colour: the variables of Gradio that take it. A custom property follows the mode.
_COLOURS = {
    "page": "body_background_fill table_odd_background_fill",
    "ink": (
        "body_text_color block_title_text_color checkbox_label_text_color "
        "button_secondary_text_color table_text_color"
    ),
    "soft": (
        "body_text_color_subdued block_label_text_color block_info_text_color "
        "input_placeholder_color checkbox_border_color"
    ),
    "card": (
        "background_fill_primary background_fill_secondary block_background_fill "
        "block_label_background_fill panel_background_fill input_background_fill "
        "checkbox_background_color button_secondary_background_fill "
        "button_cancel_background_fill error_background_fill table_even_background_fill"
    ),
    "line": (
        "border_color_primary block_border_color input_border_color "
        "button_secondary_border_color table_border_color"
    ),
    "accent": (
        "border_color_accent link_text_color link_text_color_hover link_text_color_active "
        "link_text_color_visited input_border_color_focus checkbox_background_color_selected "
        "checkbox_border_color_selected button_primary_background_fill "
        "button_primary_border_color slider_color loader_color"
    ),
    "accent-soft": (
        "color_accent_soft button_secondary_background_fill_hover "
        "button_cancel_background_fill_hover"
    ),
    "accent-strong": "button_primary_background_fill_hover",
    "on-accent": "button_primary_text_color",
    "danger": (
        "button_cancel_border_color button_cancel_text_color error_text_color error_border_color"
    ),
}


def theme() -> Base:
    """Return the theme; it loads no fonts from other hosts."""
    base = Base(font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"], radius_size="lg")
    both = {
        f"{name}{mode}": f"var(--nbdt-{colour})"
        for colour, names in _COLOURS.items()
        for name in names.split()
        for mode in ("", "_dark")
    }
    return base.set(
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
