"""flash_attn.ops: the part that attention needs, rotary embedding."""
