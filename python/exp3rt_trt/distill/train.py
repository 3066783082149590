"""Trains a student: a LoRA adapter over a base model, by TRL and PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exp3rt_trt.distill.encode import Encoder
from exp3rt_trt.distill.examples import Example, make_examples
from exp3rt_trt.distill.merge import save_checkpoint
from exp3rt_trt.engines.sources import open_checkpoint, resolve
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.rating import SCALE_FILE, RatingScale
from exp3rt_trt.segments import LAYOUT_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.distill.recipe import Recipe

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def scale_of(recipe: Recipe) -> RatingScale:
    """Return the scale of a recipe's ratings."""
    return _scale("highest", recipe.data.highest)


def _scale(field: str, highest: int) -> RatingScale:
    scales = {5: RatingScale.one_to_five, 10: RatingScale.one_to_ten}
    if highest not in scales:
        raise InvalidInputError(f"[data] {field} must be 5 or 10, not {highest}")
    return scales[highest]()


def train(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Train the adapter and save it; a run that was killed goes on from its last checkpoint.

    Args:
        recipe: what to train.
        out: folder for checkpoints and, as `out/adapter`, for the best adapter by validation RMSE.

    Returns:
        The validation's RMSE and MAE, and what was seen.

    Raises:
        InvalidInputError: a faulty recipe or row.
    """
    try:
        import torch  # noqa: PLC0415
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # noqa: PLC0415

        from exp3rt_trt.distill.trainer import MixedCollator, RatingObjective, StudentTrainer  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInputError(f"training needs the extra [distill]: {error}") from error

    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    base, scale = resolve(recipe.base), scale_of(recipe)
    text_scale = _scale("text_highest", recipe.data.text_highest or recipe.data.highest)
    layout = recipe.train.layout
    encoders = [Encoder(base, ratings, layout=layout) for ratings in (scale, text_scale)]
    examples = make_examples(recipe, *encoders)
    if base.is_file():  # transformers would keep a GGUF file's weights packed
        save_checkpoint(open_checkpoint(base), out / "base")
        base = out / "base"
    model, tokenizer = _student(recipe, base)
    trainer = StudentTrainer(
        model=model,
        args=_arguments(recipe, out, examples.train),
        train_dataset=_dataset(examples.train),
        eval_dataset=_dataset(examples.validation),
        processing_class=tokenizer,
        data_collator=MixedCollator(DataCollatorForLanguageModeling(tokenizer.pad_token_id or 0)),
        callbacks=_early_stopping(recipe),
        objective=RatingObjective(scale.values, recipe.train.label_width, recipe.train.squared_weight),
    )
    trainer.train(resume_from_checkpoint=any(out.glob("checkpoint-*")) or None)
    errors = trainer.evaluate()
    model.peft_config["default"].base_model_name_or_path = recipe.base  # not the folder of this run
    trainer.save_model(str(out / "adapter"))
    if layout.segmented:
        (out / "adapter" / LAYOUT_FILE).write_text(layout.to_json(), encoding="utf-8")
    (out / "adapter" / SCALE_FILE).write_text(scale.to_json(), encoding="utf-8")
    return {
        "validation_rmse": errors["eval_rmse"],
        "validation_mae": errors["eval_mae"],
        "examples": len(examples.train),
        "texts_left_out": examples.texts_left_out,
        "steps": trainer.state.global_step,
    }


def _dataset(examples: list[Example]) -> Any:  # noqa: ANN401  (datasets is untyped)
    """Give every example both fields, because a Dataset has only those of its first row."""
    import datasets  # noqa: PLC0415

    return datasets.Dataset.from_list([{"group": None, "text": None, **example} for example in examples])


def _arguments(recipe: Recipe, out: Path, examples: list[Example]) -> Any:  # noqa: ANN401  (TRL is untyped)
    import torch  # noqa: PLC0415
    from trl import SFTConfig  # noqa: PLC0415

    given, gpu = recipe.train, torch.cuda.is_available()
    steps = -(-len(examples) // given.users_per_step)
    between = max(1, steps // max(1, given.evaluations))
    return SFTConfig(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=given.users_per_step,
        per_device_eval_batch_size=given.users_per_step,
        train_sampling_strategy="sequential",  # the order is that of the examples
        learning_rate=given.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        adam_beta2=0.98,  # runs are short
        bf16=False,  # no autocast: the base is in bf16 itself, the adapter in float32
        use_cpu=not gpu,
        gradient_checkpointing=False,
        eval_strategy="steps" if given.evaluations else "no",
        eval_steps=between,
        save_steps=between if given.patience else given.save_steps,
        save_total_limit=2,
        load_best_model_at_end=bool(given.patience),
        metric_for_best_model="rmse",
        greater_is_better=False,
        logging_steps=1,
        report_to=[],
        remove_unused_columns=False,
        max_length=None,  # nothing is cut: a prompt's label stands at its end
        dataset_kwargs={"skip_prepare_dataset": True},
        seed=recipe.seed,
        disable_tqdm=True,
    )


def _early_stopping(recipe: Recipe) -> list[Any]:
    from transformers import EarlyStoppingCallback  # noqa: PLC0415

    patience = recipe.train.patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []


def _student(recipe: Recipe, base: Path) -> tuple[Any, Any]:
    """The base model with a fresh adapter, and its tokenizer."""
    import torch  # noqa: PLC0415
    from peft import (  # noqa: PLC0415
        LoraConfig,
        PeftModel,
        get_peft_model,
        prepare_model_for_kbit_training,
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: PLC0415

    options: dict[str, Any] = {}
    torch.manual_seed(recipe.seed)
    if recipe.train.quantized:
        if not torch.cuda.is_available():
            raise InvalidInputError("[train] quantized: QLoRA needs a GPU, and there is none")
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, **options)
    if recipe.train.quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if recipe.train.start:
        return PeftModel.from_pretrained(model, recipe.train.start, is_trainable=True), tokenizer
    config = LoraConfig(
        r=recipe.train.rank,
        lora_alpha=2 * recipe.train.rank,
        target_modules=MODULES,
        layers_to_transform=list(range(recipe.train.first_layer, model.config.num_hidden_layers)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config), tokenizer
