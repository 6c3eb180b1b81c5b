"""same_text.py WHOLE STREAM - is the text of a stream of TGI's events that of a plain answer, and complete?"""
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    whole = json.load(file)["generated_text"]
with open(sys.argv[2], encoding="utf-8") as file:
    events = [json.loads(line[len("data:"):]) for line in file if line.startswith("data:")]
if not events or events[-1].get("generated_text") != whole:
    sys.exit(f"the stream ended with {events[-1] if events else 'nothing'}, wanted {whole!r}")
text = "".join(e["token"]["text"] for e in events if not e["token"]["special"])
if text.strip() != whole.strip():
    sys.exit(f"the tokens make {text!r}, wanted {whole!r}")
