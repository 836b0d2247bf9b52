"""What keeps private rows inside their zone while a step reads them."""
