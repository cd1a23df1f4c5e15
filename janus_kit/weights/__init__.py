"""The embedded model: config.json, tokenizer.json and model.safetensors."""
