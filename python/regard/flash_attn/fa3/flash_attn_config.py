"""flash_attn_config: what a build of flash-attn 3 left out. regard leaves nothing out."""

CONFIG: dict[str, dict[str, bool]] = {
    "build_flags": {
        f"FLASHATTENTION_DISABLE_{feature}": False
        for feature in (
            "BACKWARD", "SPLIT", "PAGEDKV", "APPENDKV", "LOCAL", "SOFTCAP", "PACKGQA", "FP16", "FP8", "VARLEN",
            "CLUSTER", "HDIM64", "HDIM96", "HDIM128", "HDIM192", "HDIM256", "SM8x",
        )
    }
}


def show() -> None:
    """Prints CONFIG."""
    for flag, value in CONFIG["build_flags"].items():
        print(f"{flag}: {value}")
