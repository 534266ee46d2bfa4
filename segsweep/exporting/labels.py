"""What every export says of the run it came from, and of its classes."""

from __future__ import annotations

from typing import Any


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """Return which run it was, on which base, by which program."""
    return {
        "run": record["id"],
        "name": record["name"],
        "base": record["params"]["base"],
        "base_hash": record["params"]["base_hash"],
        "commit": record["git"]["commit"],
        "versions": record["versions"],
    }


def labels(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the classes: place, id in the original files, name, and text of language models."""
    data = record["data"]
    columns = zip(data["category_ids"], data["classes"], data["prompts"], strict=True)
    return [
        {"id": place, "category_id": category, "name": name, "prompt": prompt}
        for place, (category, name, prompt) in enumerate(columns)
    ]
