"""The options of the programs here that time one step of a model in PyTorch."""
import argparse


def parse(description, **flags):
    """flags: further switches by name, with what they do."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config.json of the model")
    for name, text in flags.items():
        parser.add_argument("--" + name, action="store_true", help=text)
    parser.add_argument("--layers", type=int, default=0, help="only the first layers; 0: all")
    parser.add_argument("--batch", type=int, default=8, help="sequences [8]")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a sequence [2048]")
    parser.add_argument("--repeat", type=int, default=7, help="steps that count, behind three that warm up [7]")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    return parser.parse_args()
