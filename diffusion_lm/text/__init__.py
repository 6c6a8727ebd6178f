"""Words in and out: tokenizer, corpora, the toy grammar, batches."""
