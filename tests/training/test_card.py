"""What a model card says of the scores."""

from huggingface_hub import ModelCard

from training.card import write_card
from training.recipe import read_recipe


def test_a_card_does_not_pass_off_scores_on_training_pictures_as_results(tiny, tmp_path):
    scores = dict.fromkeys(("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"), 0.5)
    settings = {"dataset_name": "you/streets", "output_dir": str(tmp_path)}
    cards = {}
    for train_split in ("train", "train+validation"):
        recipe = read_recipe({**settings, "train_split": train_split}, [])
        write_card(tmp_path, recipe, tiny(), {**scores, "per_class_iou": {"a": 0.5}}, train_rows=3)
        cards[train_split] = (tmp_path / "README.md").read_text()
    assert "model-index" in cards["train"] and "trained on, too" not in cards["train"]
    assert "model-index" not in cards["train+validation"] and "trained on, too" in cards["train+validation"]
    assert all("| mean IoU | 50.00 |" in card and "curve.png" not in card for card in cards.values())


def test_names_break_neither_a_card_s_table_nor_its_code(tiny, tmp_path):
    folder = tmp_path / 'a "net"'
    folder.mkdir()
    scores = dict.fromkeys(("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"), 0.5)
    names = ["road\n---\nlicense: mit", "a|b"]
    recipe = read_recipe({"dataset_name": "you/streets", "output_dir": str(folder)}, [])
    scores["per_class_iou"] = dict.fromkeys(names, 0.5)
    write_card(folder, recipe, tiny(id2label=dict(enumerate(names))), scores)
    text = (folder / "README.md").read_text()
    assert "| IoU of road --- license: mit | 50.00 |" in text and r"| IoU of a\|b | 50.00 |" in text
    assert "license" not in ModelCard(text).data.to_dict()
    compile(text.split("```python")[1].split("```")[0], "card", "exec")
