"""The field in which visitors type models, which then are a kind of picture beside the page's own."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fcn_hf.errors import FCNError
from space.layout import I18N, say_on_failure
from space.panels import message
from space.texts import LANGUAGES
from space.typed_models import MAX_TEXT, TITLE, TypedModels
from space.uploads import limited


def models_accordion(
    typed: TypedModels, kind: gr.Radio, choices: list[tuple[Any, str]], code: gr.State
) -> tuple[Any, gr.Textbox]:
    """The field, closed at first, to be called inside the page's blocks: the event that loads the models, and the field
    that has their names.

    Args:
        typed: loads the models.
        kind: gets them as a choice of this visitor's, and has it chosen.
        choices: the page's own kinds, title and name.
        code: of the visitor's language.
    """

    def load(text: Any, code: str) -> tuple[Any, str]:
        try:
            loaded = typed.kind(text)
        except FCNError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error
        update = gr.Radio([*choices, (TITLE, loaded.name)], value=loaded.name, visible=True)
        language = LANGUAGES[code]
        known = [language("model_loaded", name=each.name, count=len(each.labels)) for each in loaded.segmenters]
        return update, message(language("models_loaded", models=", ".join(known)))

    with gr.Accordion(I18N("models"), open=False, elem_id="fcn-models"):
        text = gr.Textbox(
            label=I18N("models_field_home" if typed.at_home else "models_field"),
            placeholder="owner/name, owner/other",
            max_lines=1,
            max_length=MAX_TEXT,
        )
        button = gr.Button(I18N("models_button"))
        said = gr.HTML(apply_default_css=False)
    event = gr.on(
        [text.submit, button.click],
        limited(load),
        [text, code],
        [kind, said],
        preprocess=False,
        trigger_mode="once",
        show_progress_on=said,
        # Beside the line in which networks compute, so that no visitor waits for another one's models.
        concurrency_id="models",
        concurrency_limit=1,
        api_visibility="private",
    )
    say_on_failure(event, "not_loaded", [said])
    return event, text
