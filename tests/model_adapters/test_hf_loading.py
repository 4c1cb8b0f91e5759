"""What a user gets wrong with a transformers checkpoint: each mistake is one line that names the
thing and the way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_hf import PROMPT, ask, clip
from tiny_hf import write_tiny_hf

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.lmms.models import model_class
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Prompt


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_tiny_hf(tmp_path_factory.mktemp("hf") / "original", "qwen2_5_vl", layers=2)


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def edit(file: Path, **changes) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def one_line(excinfo) -> str:
    message = str(excinfo.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"architectures": ["PllavaForConditionalGeneration"], "model_type": "pllava"},
            "mapflow_llava",
        ),
        (
            {
                "architectures": ["InternVLChatModel"],
                "model_type": "internvl_chat",
                "auto_map": {"AutoConfig": "configuration.Config"},
            },
            "mapflow_internvl",
        ),
        (
            {
                "architectures": ["NewModel"],
                "model_type": "new",
                "auto_map": {"AutoConfig": "configuration.Config", "AutoModel": "modeling.Model"},
            },
            "Python code from the checkpoint, which is never run",
        ),
        (
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
            "not an image-text-to-text model",
        ),
        (
            {"architectures": ["Unheard"], "model_type": "unheard"},
            "not an image-text-to-text model",
        ),
    ],
)
def test_other_families_checkpoints(folder, config, said):
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration.py").write_text("raise SystemExit('code of the checkpoint was run')")
    with pytest.raises(MapflowError, match=said) as excinfo:
        HfVideo.load(folder)
    assert config["architectures"][0] in one_line(excinfo)


def test_other_adapters_send_transformers_models_here(original):
    from mapflow.model_adapters.families.llava.model import LlavaVideo

    with pytest.raises(
        MapflowError, match=r"Qwen2_5_VLForConditionalGeneration.*--model mapflow_hf"
    ):
        LlavaVideo.load(original)


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("processor_config.json", "processor_config.json"),
        ("chat_template.jinja", "chat template"),
        ("model.safetensors", "model.safetensors"),
    ],
)
def test_missing_files_are_named(folder, removed, said):
    (folder / removed).unlink()
    with pytest.raises(MapflowError, match=said) as excinfo:
        HfVideo.load(folder)
    one_line(excinfo)


def test_pickled_weights_are_refused_with_the_way_out(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(MapflowError, match=r"pytorch_model\.bin.*safe_serialization"):
        HfVideo.load(folder)


def test_missing_differing_and_surplus_tensors(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.1" in name and "down_proj" in name)

    save_file({k: v for k, v in weights.items() if k != name}, file, metadata={"format": "pt"})
    with pytest.raises(MapflowError, match=r"lacks 1 of the model's tensors: .*down_proj"):
        HfVideo.load(folder)
    save_file(
        {**weights, name: weights[name][:, :-1].contiguous()}, file, metadata={"format": "pt"}
    )
    with pytest.raises(MapflowError, match="cannot be loaded"):
        HfVideo.load(folder)
    save_file({**weights, "model.stranger.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"model\.stranger\.weight"):
        HfVideo.load(folder)


def test_remote_code_is_refused_before_anything_is_loaded(folder):
    with pytest.raises(MapflowError, match="trust_remote_code is refused"):
        model_class("mapflow_hf")(pretrained=str(folder), trust_remote_code=True)


def test_a_processor_without_videos(folder):
    edit(folder / "processor_config.json", processor_class="LlavaProcessor")
    with pytest.raises(MapflowError, match="LlavaProcessor takes no videos") as excinfo:
        HfVideo.load(folder)
    one_line(excinfo)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_dtype(folder, dtype):
    model = HfVideo.load(folder, dtype=dtype)
    assert model.model.dtype == getattr(torch, dtype)
    assert torch.isfinite(model.plain_logits(model.encode(ask(), clip()))).all()


def test_lora_is_merged_where_peft_put_it(folder, tmp_path):
    """W + alpha/r · B A, at the names that peft saves; the same as changing the checkpoint's own
    tensor."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    module = "model.language_model.layers.1.self_attn.q_proj"
    a, b = torch.randn(2, 32), torch.randn(32, 2)
    save_file(
        {
            f"base_model.model.{module}.lora_A.weight": a,
            f"base_model.model.{module}.lora_B.weight": b,
        },
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4})
    )
    merged = HfVideo.load(folder, lora=adapter)
    plain = HfVideo.load(folder)
    weight = dict(plain.model.named_parameters())[f"{module}.weight"]
    assert not torch.equal(weight, dict(merged.model.named_parameters())[f"{module}.weight"])
    weight.copy_(weight + 2.0 * b @ a)
    prepared = plain.encode(ask(), clip())
    torch.testing.assert_close(
        merged.plain_logits(prepared), plain.plain_logits(prepared), rtol=0, atol=1e-5
    )
    assert merged.digest != plain.digest and merged.name.endswith("+adapter")


def test_questions_that_contain_a_placeholder(original):
    model = HfVideo.load(original)
    with pytest.raises(MapflowError, match=r"tiny-1.*video_pad.*reword"):
        model.encode(ask("What is <|video_pad|>?"), clip())


def test_templates_that_change_the_wording_are_refused(original):
    model = HfVideo.load(original)
    template = model.processor.chat_template
    model.processor.chat_template = template.replace("c['text']", "c['text'] | upper")
    with pytest.raises(MapflowError, match="changes the wording"):
        model.encode(ask(), clip())
    model.processor.chat_template = template.replace("<|video_pad|>", "")
    with pytest.raises(MapflowError, match="does not put one"):
        model.encode(ask(), clip())
    model.processor.chat_template = "{{ raise_exception('no systems') }}"
    with pytest.raises(MapflowError, match="no systems"):
        model.encode(ask(), clip())


def test_system_text_and_begun_answer_keep_their_places(original):
    model = HfVideo.load(original)
    prompt = Prompt(
        **{**vars(PROMPT), "system": "Watch closely.", "answer_prefix": "Best option:("}
    )
    prepared = model.encode(ask(prompts={"chat": prompt}), clip())
    layout = prepared.layout
    said = model.tokenizer.decode(prepared.input_ids[layout.positions("system")])
    assert said.startswith("<|im_start|>system\nWatch closely.")
    assert model.tokenizer.decode(prepared.input_ids[-3:]).endswith("(")
    assert [model.tokenizer.decode([token]) for token in prepared.option_ids] == ["A", "B"]
