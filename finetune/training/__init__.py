"""What training is made of; `finetune.train` puts it together."""
