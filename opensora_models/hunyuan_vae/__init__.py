"""hunyuan_vae."""
