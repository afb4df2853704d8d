"""The training engine that the finetune, targets and train stages share."""
