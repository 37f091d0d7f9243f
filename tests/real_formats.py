"""Tiny copies of the real sets, each in the format that its entry in `real_sets.py` was written against."""

import json

import datasets
from PIL import Image

IMAGE, IMAGES, TEXTS = datasets.Image(), datasets.List(datasets.Image()), datasets.List(datasets.Value("string"))


def picture(number, size=(40, 40)):
    """A picture that is like no other of another number."""
    return Image.new("RGB", size, (number * 37 % 256, number * 11 % 256, number % 256))


def parquet(path, rows, **features):
    """A parquet file as the hub has it, with image features."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table(rows, **features).to_parquet(path)


def table(rows, **features):
    made = datasets.Dataset.from_list(rows)
    for column, feature in features.items():
        made = made.cast_column(column, feature)
    return made


def authors(folder, rows=8):
    """afdsafas/dtd-4shot-b2n: image, problem with the choice list in it, solution."""
    names = ["banded", "blotchy"]
    problem = "What type of texture is in the photo?\n Please choose one from list [ banded, blotchy]."
    parquet(folder / "data" / "train-00000-of-00001.parquet", [
        {"image": picture(i), "problem": problem, "solution": f"<answer> {names[i % 2]} </answer>"} for i in range(rows)
    ], image=IMAGE)  # fmt: skip
    return folder


def sat(folder, rows=60):
    """array/SAT: a list of images, answers with the right one first; the card says which file is which split."""

    def row(i, images=1):
        return {"image_bytes": [picture(1000 * images + i + k) for k in range(images)],
                "question": "Is the chair left of the table?", "answers": ["yes", "no"],
                "question_type": "obj_movement", "correct_answer": "yes"}  # fmt: skip

    parquet(folder / "SAT_train.parquet", [row(i, 1 + i % 2) for i in range(rows)], image_bytes=IMAGES)
    parquet(folder / "SAT_test.parquet", [row(500, 2), row(503, 2)], image_bytes=IMAGES)
    (folder / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n"
        '  - split: train\n    path: "SAT_train.parquet"\n  - split: test\n    path: "SAT_test.parquet"\n---\n'
    )
    return folder


def sat_15000(folder):
    """SAT_train_15000.json beside its images."""
    return json_file(folder, "SAT_train_15000.json", [
        {"images": [f"images/{i}.png"], "messages": [
            {"role": "user", "content": "<image>Is the cup left or right of the lamp? Choose left or right."},
            {"role": "assistant", "content": "left"}]} for i in range(20)
    ], [f"images/{i}.png" for i in range(20)])  # fmt: skip


def cv_bench(folder):
    """nyu-visionx/CV-Bench: test.parquet; answers are letters in brackets."""
    parquet(folder / "test.parquet", [
        {"idx": i, "type": "2D", "task": "Count", "image": picture(700 + i), "question": "How many pens are there?",
         "choices": ["2", "1", "3"], "answer": "(C)", "prompt": "How many pens ...", "source": "COCO"} for i in range(4)
    ], image=IMAGE)  # fmt: skip
    return folder


def mathv360k(folder):
    """train_samples_all_tuning.json with data_images beside it."""
    hint = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    asked = f"<image>\n{hint}\nQuestion: Find $m\\angle H$\nChoices:\n(A) 97\n(B) 102\n(C) 107"
    rows = [{"image": f"Geometry3K/images/{i}.png", "conversations": [
        {"from": "human", "value": asked if i % 2 else "<image>\nHow many legs are there?"},
        {"from": "gpt", "value": "The answer is B" if i % 2 else "The answer is 4"}]} for i in range(20)]  # fmt: skip
    names = [f"data_images/{row['image']}" for row in rows]
    return json_file(folder, "train_samples_all_tuning.json", rows, names)


def mathvista(folder):
    """AI4Math/MathVista: the answer is the text of a choice, or a number."""
    row = {"pid": "1", "image": "images/1.jpg", "decoded_image": picture(1), "precision": 1.0, "unit": None}
    parquet(folder / "data" / "testmini-00000-of-00001-725687bf7a18d64b.parquet", [
        row | {"question": "Which is larger?", "choices": ["larger than", "equal to"], "answer": "equal to"},
        row | {"question": "How long is the side?", "choices": None, "answer": "1.5", "unit": "cm"},
    ], decoded_image=IMAGE, choices=TEXTS, unit=datasets.Value("string"))  # fmt: skip
    return folder


def mathvision(folder):
    """MathLLMs/MathVision: the answer is a letter where there are options."""
    row = {"id": "4", "image": "images/4.jpg", "decoded_image": picture(1), "solution": None, "level": 2}
    rows = [
        row | {"question": "Which one?\n<image1>", "options": ["B", "C", "A"], "answer": "B"},
        row | {"question": "How many squares?\n<image1>", "options": [], "answer": "12"},
    ]
    for split in ("test", "testmini"):
        name = f"{split}-00000-of-00001-f8ff70fcb2f29b1d.parquet"
        parquet(folder / "data" / name, rows, decoded_image=IMAGE, options=TEXTS)
    return folder


def mathvision_github(folder):
    """MATH-V on GitHub: data/test.jsonl, its images in a folder beside `data`; no choices are an empty list."""
    row = {"id": "4", "image": "images/4.jpg", "solution": None, "level": 2, "subject": "counting"}
    return json_file(folder, "data/test.jsonl", [
        row | {"question": "Which one?\n<image1>", "options": ["B", "", "A", "C"], "answer": "C"},
        row | {"question": "How many squares?\n<image1>", "options": [], "answer": "12"},
    ], ["images/4.jpg", "data/none.jpg"], lines=True)  # fmt: skip


def mathvista_github(folder):
    """MathVista on GitHub: one object by id, images beside it, and a file of sources that has no rows."""
    row = {"image": "images/1.jpg", "unit": None, "precision": None, "metadata": {"split": "testmini"}}
    rows = {
        "1": row | {"pid": "1", "question": "Which is larger?", "choices": ["larger than", "equal to"],
                    "answer": "equal to", "question_type": "multi_choice", "answer_type": "text"},
        "2": row | {"pid": "2", "question": "How long is the side?", "choices": None, "answer": "1.5",
                    "question_type": "free_form", "answer_type": "float", "unit": "cm", "precision": 1.0},
    }  # fmt: skip
    json_file(folder, "source.json", {"IQTest": {"images": 1}}, [])
    return json_file(folder, "annot_testmini.json", rows, ["images/1.jpg"])


def puzzlevqa(folder):
    """LLM-PuzzleTest/PuzzleVQA: a JSON object a line, images below the same folder."""
    question = "What is the size of the missing circle denoted with a question mark?"
    rows = [{"image": f"images/size_cycle/size_cycle_{i:04}.png", "question": question, "answer": "medium",
             "options": ["small", "medium", "large"], "caption": "", "explanation": "", "deduction": ""}
            for i in range(20)]  # fmt: skip
    return json_file(folder, "data/size_cycle.json", rows, [f"data/{row['image']}" for row in rows], lines=True)


def algopuzzlevqa(folder):
    """declare-lab/AlgoPuzzleVQA: what `save_to_disk` writes, one split called data."""
    rows = [{"image": picture(i), "question": "How many moves?", "options": ["5", "3", "4", "2"], "answer": "3"}
            for i in range(4)]  # fmt: skip
    datasets.DatasetDict({"data": table(rows, image=IMAGE)}).save_to_disk(folder)
    return folder


def algopuzzlevqa_json(folder):
    """The same on GitHub: numbers are numbers."""
    rows = [{"image": "images/wood_0.jpg", "question": "How many moves?", "options": [5, 3, 4, 2], "answer": 3}]
    return json_file(folder, "data/wood_slide.json", rows, ["data/images/wood_0.jpg"], lines=True)


def json_file(folder, name, rows, images, lines=False, first=0):
    for number, image in enumerate(images, first):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / image)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    (folder / name).write_text(text)
    return folder
