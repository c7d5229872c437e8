"""The methods as PEFT tuners; importing this package registers them."""
