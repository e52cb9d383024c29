"""Does teaching a language model to spell transfer to letter position and letter count?"""
