"""flash_attn.ops.triton: apply_rotary; plain torch here."""
