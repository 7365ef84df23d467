"""What a model card says of the scores."""

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
