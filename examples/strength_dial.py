"""A steering vector without training, and the dial that turns it up, down and off.

The vector is the difference of the mean hidden states of two sets of sentences, after one decoder layer.

python examples/strength_dial.py --model smollm2-135m --strengths -4 0 4
"""

import argparse

import torch
from peft import get_peft_model

from trimtab import SteeringConfig, set_strength
from trimtab.models import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m", help="hub id, directory, or the embedded model")
parser.add_argument("--strengths", type=float, nargs="+", default=[-4.0, 0.0, 4.0])
parser.add_argument("--prompt", default="I think that today will be")
options = parser.parse_args()

HAPPY = ["I am so happy.", "What a wonderful day!", "I love this.", "This is great news."]
SAD = ["I am so sad.", "What a terrible day!", "I hate this.", "This is awful news."]

base, tokenizer = load_model(options.model)
layer = base.config.num_hidden_layers // 3


@torch.no_grad()
def mean_state(sentences: list[str]) -> torch.Tensor:
    """The mean over sentences of the last token's hidden state after `layer`."""
    encoded = [tokenizer(sentence, return_tensors="pt").to(base.device) for sentence in sentences]
    states = [base(**ids, output_hidden_states=True).hidden_states[layer + 1][0, -1] for ids in encoded]
    return torch.stack(states).float().mean(0)


vector = mean_state(HAPPY) - mean_state(SAD)
config = SteeringConfig(intervention="vector", layers=[layer], task_type="CAUSAL_LM")
model = get_peft_model(base, config).eval()
with torch.no_grad():
    (parameter,) = (p for p in model.parameters() if p.requires_grad)
    parameter.copy_(vector)

prompt = tokenizer(options.prompt, return_tensors="pt").to(base.device)
for strength in options.strengths:
    set_strength(model, strength)
    ids = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0]
    print(f"{strength:+.1f}  {tokenizer.decode(ids, skip_special_tokens=True)!r}")
