"""Images and labels: reading, checking, splitting, transforming and feeding them. Stands alone in the package.

`sources.open_data` turns a name, folder or file into a `bundle.DataBundle`; `transforms.Preprocessing` is the one
definition of what a network sees in evaluation; `loading` feeds training in an order and with randomness that are pure
functions of (seed, epoch, index); `checks.check_classification` names what is wrong with a data set.
"""
