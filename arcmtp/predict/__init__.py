"""A model of Battlemage cards: how fast arcmtp would be on one. Nothing is measured."""

from arcmtp.predict.cards import CardOnPaper, card_on_paper, cards_on_paper
from arcmtp.predict.steps import predicted_tokens_per_second
from arcmtp.predict.times import Range

__all__ = ["CardOnPaper", "Range", "card_on_paper", "cards_on_paper", "predicted_tokens_per_second"]
