"""How the page looks: one theme, readable in light and dark, and at 390 px."""

import gradio as gr

__all__ = ["CSS", "JS", "theme"]

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#head h1 { font-size: 1.7rem; letter-spacing: -0.02em; margin: 0.4rem 0 0.1rem; }
#head p { color: var(--body-text-color-subdued); margin: 0; }
.status { min-height: 2.6rem; padding: 0.55rem 0.9rem; border-radius: var(--radius-lg);
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.status:empty, .status.hide { display: none; }
.status p { margin: 0; font-variant-numeric: tabular-nums; }
.vary { align-items: end; }
#draw-live img, #draw-gallery img { image-rendering: auto; }
#ask-status:not(:has(p)) { display: none; }
@media (max-width: 640px) {
  .gradio-container { padding: 0 0.6rem !important; }
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
    blue = "*primary_700"
    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        spacing_size="md",
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
        slider_color=blue,
        slider_color_dark="*primary_400",
    )
