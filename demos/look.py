"""How the page looks: one theme, readable in light and dark, and at 390 px."""

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

__all__ = ["CSS", "JS", "theme"]

CSS = """
.gradio-container, .gradio-container main { width: 100% !important; max-width: none !important; }
#head, #tabs { width: 100%; max-width: 1120px; margin-inline: auto; }
#head h1 { font-size: 1.6rem; letter-spacing: -0.02em; margin: 0.4rem 0 0.1rem; }
#head p { color: var(--body-text-color-subdued); margin: 0; }
.block.status { padding: 0.6rem 0.9rem !important; min-height: 2.7rem; overflow: hidden;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-lg); }
.prose.status { border: 0; padding: 0; background: none; }
.status p { margin: 0; font-variant-numeric: tabular-nums; }
.ends { align-items: end; }
#draw-gallery .grid-wrap { max-height: none; }
#draw-gallery .gallery-item:only-child { width: min(100%, 520px); margin: 0 auto; }
#ask-status:not(:has(p)) { display: none; }
#ask-chat button[aria-label="Share"], #ask-chat button[title="Share"] { display: none; }
#ask-chat .message img { max-height: 150px; width: auto; }
#ask-chat .placeholder-content { padding: 0 1.5rem; text-align: center; }
@media (max-width: 640px) {
  .gradio-container main { padding: 0.6rem !important; }
  #head h1 { font-size: 1.4rem; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }
"""

# Screen readers hear the status lines; Gradio has no argument for this.
JS = """
() => {
  for (const box of document.querySelectorAll(".status")) {
    box.setAttribute("role", "status");
    box.setAttribute("aria-live", "polite");
  }
}
"""


def theme() -> gr.themes.Base:
    """Quiet greys and one blue, dark enough for white letters on it."""
    # Of Gradio's fonts this one has a whole bold face; its files of weight 600 are cut down.
    blue = "*primary_700"
    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=(LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=(LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        button_primary_background_fill=blue,
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        block_title_text_weight="600",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        body_background_fill="*neutral_50",
        checkbox_border_radius="*radius_xs",
        slider_color=blue,
        slider_color_dark="*primary_400",
    )
